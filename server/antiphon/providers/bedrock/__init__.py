"""The protocol of AWS Bedrock's Converse API."""
