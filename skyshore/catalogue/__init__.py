"""The models: fetched from pinned packages, verified, converted here, cached."""
