"""Checks of data sets before they are used."""
