"""Helpers of the tests: imported by test modules, which never import each other."""
