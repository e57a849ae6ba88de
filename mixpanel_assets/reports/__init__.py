"""What a sync says of itself in Dagster: metadata, Markdown, pictures. Nothing is fetched or stored here."""
