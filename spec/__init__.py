"""The normative documents, schemas and vectors, with a slow reference model. Nothing here is installed."""
