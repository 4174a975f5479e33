"""The HTTP end of the box: routes parse, call the copilot, and show; docs/http.md is the contract."""
