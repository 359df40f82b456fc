"""Values and rules that know no wire, no database and no provider."""
