"""The lean HTTP/2 server, against independent implementations: `h2` and grpcio as clients, Envoy as the proxy."""
