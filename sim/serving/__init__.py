"""The decisions of a serving engine, in plain Python with no clock: a test can drive them step by step."""
