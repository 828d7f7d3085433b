"""The flags that are known of each engine: data, one file per engine."""
