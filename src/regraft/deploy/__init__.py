"""From a fitted model to one that can be handed on: a file that needs neither torch nor Regraft."""
