"""A folder of namespace files, as the engine keeps it: made, mounted, unmounted, removed."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path

import pytest

from leasebroker import spaces
from leasebroker.netns import GoneError
from leasebroker.plan import SetMtu
from leasebroker.spaces import Spaces, Tracked
from tests.lab import netns
from tests.leasebroker.boxes import Box, box

pytestmark = pytest.mark.usefixtures("needs_root")


@pytest.fixture
def one() -> Iterator[Box]:
    with box() as found:
        yield found


class Files:
    """The folder, with namespaces mounted on its files."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def mount(self, name: str, namespace: Path) -> None:
        """As the engine: first the file, then the namespace on it."""
        self.path.mkdir(exist_ok=True)
        (self.path / name).touch()
        subprocess.run(["mount", "--bind", namespace, self.path / name], check=True)

    def unmount(self, name: str) -> None:
        subprocess.run(["umount", "--lazy", self.path / name], check=True)

    def remove(self, name: str) -> None:
        self.unmount(name)
        (self.path / name).unlink()

    def unmount_all(self) -> None:
        mounted = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for point in mounted:
            if point.startswith(f"{self.path}/"):
                subprocess.run(["umount", "--lazy", point], check=True)


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    found = Files(tmp_path / "netns")
    try:
        yield found
    finally:
        found.unmount_all()


class Watch:
    """The `Spaces` of a folder and what they told."""

    def __init__(self, path: Path) -> None:
        self.told: list[str] = []
        self.spaces = Spaces(path, lambda one: self._tell("appeared", one), lambda one: self._tell("changed", one))

    def _tell(self, what: str, one: Tracked) -> None:
        self.told.append(f"{what} {one.space.name}")

    def there(self) -> dict[str, Tracked]:
        return {one.space.name: one for one in self.spaces}

    async def until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline, f"{what}: {self.told}"
            await asyncio.sleep(0.005)


def descriptors() -> list[str]:
    """What this process has open."""
    found = []
    for each in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(each.readlink()))
        except OSError:  # the listing's own
            continue
    return sorted(found)


def watched(path: Path, story: Callable[[Watch], Coroutine[None, None, None]]) -> None:
    """Run a story on a loop of its own, after which nothing is open that was not before."""

    async def run() -> None:
        before = descriptors()
        watch = Watch(path)
        try:
            await story(watch)
        finally:
            watch.spaces.close()
        assert list(watch.spaces) == []
        await watch.until(lambda: descriptors() == before, "the descriptors to be closed")

    asyncio.run(run())


def test_a_namespace_that_is_there_already_appears(one: Box, files: Files) -> None:
    files.mount("aa", one.path)

    async def story(watch: Watch) -> None:
        assert watch.told == []
        await watch.until(watch.there, "it")
        assert watch.told == ["appeared aa", "changed aa"]
        (tracked,) = watch.spaces
        assert [link.name for link in (await watch.spaces.look(tracked)).links] == ["lo", "eth0", "eth1"]

    watched(files.path, story)


def test_one_that_comes_later_appears_once_in_a_folder_made_for_it(one: Box, files: Files) -> None:
    async def story(watch: Watch) -> None:
        assert files.path.is_dir()
        files.mount("aa", one.path)
        await watch.until(watch.there, "it")
        files.mount("bb", netns.FOLDER / one.peer)
        await watch.until(lambda: "bb" in watch.there(), "the second one")
        assert watch.told == ["appeared aa", "changed aa", "appeared bb", "changed bb"]

    watched(files.path, story)


def test_without_a_place_for_the_folder_there_is_nothing_to_watch(tmp_path: Path) -> None:
    async def run() -> None:
        with pytest.raises(FileNotFoundError):
            Watch(tmp_path / "docker" / "netns")

    before = descriptors()
    asyncio.run(run())
    assert descriptors() == before


def test_a_namespace_is_waited_for_while_its_file_is_new(one: Box, files: Files) -> None:
    async def story(watch: Watch) -> None:
        (files.path / "aa").touch()
        await watch.until(lambda: watch.spaces._opening, "the file to be noticed")
        await asyncio.sleep(0.05)
        assert watch.told == []
        files.mount("aa", one.path)
        await watch.until(watch.there, "it")

    watched(files.path, story)


def test_a_file_that_stays_a_file_is_let_go_and_taken_up_when_it_is_made_anew(
    one: Box, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spaces, "MOUNT_SECONDS", 0.1)

    async def story(watch: Watch) -> None:
        (files.path / "aa").touch()
        await watch.until(lambda: watch.spaces._opening, "the file to be noticed")
        await watch.until(lambda: not watch.spaces._opening, "the file to be let go")
        assert watch.told == []
        (files.path / "aa").unlink()
        files.mount("aa", one.path)
        await watch.until(watch.there, "it")

    watched(files.path, story)


def test_a_file_that_is_removed_before_anything_is_mounted_is_forgotten(files: Files) -> None:
    async def story(watch: Watch) -> None:
        (files.path / "aa").touch()
        await watch.until(lambda: watch.spaces._opening, "the file to be noticed")
        (files.path / "aa").unlink()
        await watch.until(lambda: not watch.spaces._opening, "the file to be forgotten")
        assert watch.told == []

    watched(files.path, story)


def test_the_watch_can_end_while_a_namespace_is_waited_for(files: Files) -> None:
    async def story(watch: Watch) -> None:
        (files.path / "aa").touch()
        await watch.until(lambda: watch.spaces._opening, "the file to be noticed")

    watched(files.path, story)


@pytest.mark.parametrize("change", ["addr add 10.0.1.20/24 dev eth0", "link set eth1 mtu 1400", "link set eth0 down"])
def test_a_change_is_told(change: str, one: Box, files: Files) -> None:
    files.mount("aa", one.path)

    async def story(watch: Watch) -> None:
        await watch.until(watch.there, "it")
        watch.told.clear()
        one.ip(change)
        await watch.until(lambda: watch.told, "the change")
        for _ in range(100):
            await asyncio.sleep(0)
        assert set(watch.told) == {"changed aa"}
        assert len(watch.told) < 20

    watched(files.path, story)


def test_operations_are_carried_out_and_told_as_a_change(one: Box, files: Files) -> None:
    files.mount("aa", one.path)

    async def story(watch: Watch) -> None:
        await watch.until(watch.there, "it")
        watch.told.clear()
        (tracked,) = watch.spaces
        await watch.spaces.apply(tracked, [SetMtu(2, 1400)])
        assert (await watch.spaces.look(tracked)).links[1].mtu == 1400
        await watch.until(lambda: watch.told, "the change")

    watched(files.path, story)


def test_a_namespace_that_is_removed_is_forgotten(one: Box, files: Files) -> None:
    files.mount("aa", one.path)

    async def story(watch: Watch) -> None:
        await watch.until(watch.there, "it")
        (tracked,) = watch.spaces
        files.remove("aa")
        await watch.until(lambda: not watch.there(), "it to go")
        assert not watch.spaces.is_there(tracked)
        for call in (watch.spaces.look(tracked), watch.spaces.apply(tracked, [SetMtu(2, 1400)])):
            with pytest.raises(GoneError, match="aa"):
                await call
        assert one.show("link", "show", "dev", "eth0")[0]["mtu"] == 1500

    watched(files.path, story)


def test_a_file_that_is_left_without_its_namespace_is_gone(one: Box, files: Files) -> None:
    """The next look finds that out."""
    files.mount("aa", one.path)

    async def story(watch: Watch) -> None:
        await watch.until(watch.there, "it")
        (tracked,) = watch.spaces
        files.unmount("aa")
        assert (files.path / "aa").exists()
        with pytest.raises(GoneError, match="aa"):
            await watch.spaces.look(tracked)
        assert watch.there() == {}

    watched(files.path, story)


def test_a_name_that_comes_back_is_another_namespace(one: Box, files: Files) -> None:
    """A container that is restarted: what belongs to the old one is not done in the new one."""
    files.mount("aa", one.path)

    async def story(watch: Watch) -> None:
        await watch.until(watch.there, "it")
        (old,) = watch.spaces
        files.remove("aa")
        files.mount("aa", netns.FOLDER / one.peer)
        await watch.until(lambda: watch.there().get("aa", old) is not old, "the new one")
        with pytest.raises(GoneError):
            await watch.spaces.look(old)
        (new,) = watch.spaces
        assert [link.name for link in (await watch.spaces.look(new)).links] == ["lo", "lan0", "lan1"]

    watched(files.path, story)


def test_the_own_namespace_is_none_of_a_container(one: Box, files: Files) -> None:
    files.mount("own", Path("/proc/self/ns/net"))
    files.mount("aa", one.path)

    async def story(watch: Watch) -> None:
        await watch.until(watch.there, "it")
        await watch.until(lambda: not watch.spaces._opening, "the other")
        assert list(watch.there()) == ["aa"]
        assert watch.told == ["appeared aa", "changed aa"]

    watched(files.path, story)


def test_many_that_come_and_go_leave_nothing_open(one: Box, files: Files) -> None:
    async def story(watch: Watch) -> None:
        before = len(descriptors())
        for number in range(20):
            files.mount(f"n{number}", one.path)
        await watch.until(lambda: len(watch.there()) == 20, "all")
        for number in range(20):
            files.remove(f"n{number}")
        await watch.until(lambda: not watch.there(), "all to go")
        await watch.until(lambda: len(descriptors()) == before, "the descriptors to be closed")

    watched(files.path, story)


def test_a_name_that_came_back_unseen_is_found_by_the_next_look(one: Box, files: Files) -> None:
    files.mount("aa", one.path)

    async def story(watch: Watch) -> None:
        await watch.until(watch.there, "it")
        (old,) = watch.spaces
        files.unmount("aa")
        files.mount("aa", netns.FOLDER / one.peer)
        with pytest.raises(GoneError):
            await watch.spaces.look(old)
        await watch.until(lambda: watch.there().get("aa", old) is not old, "the new one")

    watched(files.path, story)


def test_looks_in_progress_end_before_their_namespace_is_closed(one: Box, files: Files) -> None:
    files.mount("aa", one.path)

    async def story(watch: Watch) -> None:
        await watch.until(watch.there, "it")
        (tracked,) = watch.spaces
        looks = [asyncio.ensure_future(watch.spaces.look(tracked)) for _ in range(5)]
        await asyncio.sleep(0)
        files.remove("aa")
        await watch.until(lambda: not watch.there(), "it to go")
        assert {len(view.links) for view in await asyncio.gather(*looks)} == {3}

    watched(files.path, story)


def test_a_namespace_that_was_mounted_late_is_found_by_the_next_look(
    one: Box, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spaces, "MOUNT_SECONDS", 0.1)

    async def story(watch: Watch) -> None:
        (files.path / "aa").touch()
        await watch.until(lambda: watch.spaces._opening, "the file to be noticed")
        await watch.until(lambda: not watch.spaces._opening, "the file to be let go")
        files.mount("aa", one.path)
        watch.spaces.refresh()
        await watch.until(watch.there, "it")
        assert watch.told == ["appeared aa", "changed aa"]

    watched(files.path, story)


def test_a_clock_that_is_set_does_not_end_the_wait(one: Box, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = time.time

    async def story(watch: Watch) -> None:
        (files.path / "aa").touch()
        await watch.until(lambda: watch.spaces._opening, "the file to be noticed")
        await asyncio.sleep(0.05)
        monkeypatch.setattr(time, "time", lambda: clock() + 3e7)
        await asyncio.sleep(0.05)
        files.mount("aa", one.path)
        await watch.until(watch.there, "it")

    watched(files.path, story)


def test_a_folder_that_is_made_anew_is_watched_from_the_next_look_on(one: Box, files: Files) -> None:
    files.mount("aa", one.path)

    async def story(watch: Watch) -> None:
        await watch.until(watch.there, "it")
        files.remove("aa")
        files.path.rename(files.path.with_name("old"))
        watch.spaces.refresh()
        assert watch.there() == {}
        files.mount("bb", one.path)
        watch.spaces.refresh()
        await watch.until(lambda: list(watch.there()) == ["bb"], "the new one")
        files.mount("cc", netns.FOLDER / one.peer)
        await watch.until(lambda: "cc" in watch.there(), "one that is told by an event")

    watched(files.path, story)


def test_a_folder_that_does_not_come_back_is_looked_for_each_time(one: Box, files: Files) -> None:
    away = files.path.parent.with_name(f"{files.path.parent.name}-away")

    async def story(watch: Watch) -> None:
        files.path.parent.rename(away)
        watch.spaces.refresh()
        watch.spaces.refresh()
        assert watch.there() == {}
        away.rename(files.path.parent)
        files.mount("aa", one.path)
        watch.spaces.refresh()
        await watch.until(watch.there, "it")

    watched(files.path, story)
