"""The commands of the runtime, one module each; `runtime.cli` assembles them."""
