"""Upstreams that speak the providers' own protocols, and refuse a request for the reasons for which the provider would."""
