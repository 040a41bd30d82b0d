"""The preview: raw and restored side by side while the microscope runs, in a browser or in napari."""
