"""Graphs as pictures: Mermaid, and SVG that needs no service."""
