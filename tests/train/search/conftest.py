from conftest_search import begin, in_memory, resume  # noqa: F401 - fixtures
