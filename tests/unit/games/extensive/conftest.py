import pytest

from magnetar.games import extensive


@pytest.fixture(scope="session")
def kuhn() -> extensive.ExtensiveGame:
    return extensive.load_game("kuhn_poker")


@pytest.fixture(scope="session")
def leduc() -> extensive.ExtensiveGame:
    return extensive.load_game("leduc_poker")


@pytest.fixture(scope="session", params=["kuhn_poker", "leduc_poker"])
def game(request: pytest.FixtureRequest) -> extensive.ExtensiveGame:
    return request.getfixturevalue(request.param.removesuffix("_poker"))
