"""What the Makefile runs beside the tools it names: pages for models, checks of links, coverage, a new user's walk."""
