"""For tools that still look for this file; what it would say is in setup.cfg."""

from setuptools import setup

setup()
