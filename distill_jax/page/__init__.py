"""A report's page and its plots: `comparisons` reads runs and studies; `overview`, `training` and `predicted` say what plots show, in
plain numbers; `drawing` draws them with matplotlib; `document` puts them on a page, `export` into files."""
