"""The keys of the two IO managers.

Neither is Dagster's default, `io_manager`: that one belongs to the project that these assets are part of, whose own
values would go to our staging folder.
"""

WAREHOUSE = "warehouse_io_manager"
HANDLES = "handle_io_manager"
