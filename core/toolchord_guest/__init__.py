"""The far side of the wall: what runs inside a guest process. Never imports `toolchord`."""
