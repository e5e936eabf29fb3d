"""What a project keeps on disk: operations and masks, in files that are only ever appended to."""
