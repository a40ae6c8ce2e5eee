"""Registry, version stores, configuration and errors: what the lifecycle rests on."""
