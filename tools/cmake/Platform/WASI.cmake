# CMake before 3.31 does not know this system and says so at length; it has no properties that we need.
