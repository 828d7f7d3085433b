"""A scenario resolved once: its model, GPU, engine, drafts, experts, and pools with layouts, memory and tiers."""
