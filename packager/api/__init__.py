"""The API service: packagings, connections and integrations for a whole team, over HTTP."""
