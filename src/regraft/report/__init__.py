"""What people read: tables, figures, galleries, one page; rebuilt from runs. No torch here."""
