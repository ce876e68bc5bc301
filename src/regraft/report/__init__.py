"""What people read: tables, figures, galleries and one page, rebuilt from runs alone. Nothing here imports torch."""
