"""What a physicist runs before using the tool: known fields on the user's own CT, found again."""
