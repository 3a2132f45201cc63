"""Ground floor: errors, files, photos, figures and processes; nothing here knows of lesions."""
