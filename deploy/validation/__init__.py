"""What `deploy/validate` does: renders the chart and holds it to the schemas of those who will get the manifests."""
