"""The lifecycle: from a source over the staging area and the version store to a registered version."""
