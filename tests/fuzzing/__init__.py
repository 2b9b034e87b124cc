"""Random damage to bundles and random requests, seeded: what a hostile author or a careless caller may send."""
