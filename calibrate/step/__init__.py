"""Whole steps of a real engine: logs and traces -> loads with their seconds -> factors that price any load."""
