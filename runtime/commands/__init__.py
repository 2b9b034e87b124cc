"""The commands of the runtime, one module each; `runtime.cli` puts them together."""
