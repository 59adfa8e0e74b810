"""Sizes: demand and utilization in, desired node count out."""
