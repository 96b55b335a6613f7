"""sciddm: diffusion ensembles for scientific fields, from zarr to zarr."""
