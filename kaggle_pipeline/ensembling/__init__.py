"""Several models' predictions become one, scored on rows nothing was fitted on."""
