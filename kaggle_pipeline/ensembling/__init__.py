"""Several models' predictions become one, judged on rows nothing was fitted on."""
