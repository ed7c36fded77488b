"""Writing shards: folders, ImageNet's own archives or parquet files -> what `data.shards` reads."""
