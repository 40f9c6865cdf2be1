"""Weights from one form to another, and the comparison of both networks. Imported as `mt3convert`."""
