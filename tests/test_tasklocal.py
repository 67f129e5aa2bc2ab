"""no_grad, observers, the default device and the forced algorithm hold for one thread or asyncio task; a decorated
generator is in no_grad while its own body runs, and only then."""

import asyncio
import contextvars
import inspect
import threading

import numpy as np
import pytest

import minidl as dl
import minidl.functional as F
from minidl import nn
from minidl.autograd import observe_operations
from minidl.nn.module import observe_modules
from minidl.tasklocal import TaskLocal

recording = dl.is_grad_enabled


# Generators

@dl.no_grad()
def conversation(seen):
    """A generator that writes down whether it is recorded, and what reaches it."""
    try:
        while True:
            try:
                seen.append((recording(), (yield recording())))
            except KeyError as error:
                seen.append((recording(), error))
    finally:
        seen.append((recording(), "closed"))


def test_a_decorated_generator_is_not_recorded_and_the_loop_over_it_is():
    @dl.no_grad()
    def squares(x):
        for _ in range(2):
            yield x * x
        return recording()

    def delegate(x):
        return (yield from squares(x))

    x, generator = dl.tensor([2.0], requires_grad=True), delegate(dl.tensor([2.0], requires_grad=True))
    for y in squares(x):
        assert recording() and not y.requires_grad and (x * y).requires_grad
    assert [next(generator).requires_grad, next(generator).requires_grad] == [False, False]
    with pytest.raises(StopIteration) as end:
        next(generator)
    assert end.value.value is False and recording()
    assert inspect.isgeneratorfunction(squares) and squares.__name__ == "squares"


def test_what_is_sent_or_thrown_into_a_decorated_generator_arrives_there():
    seen, error = [], KeyError("thrown")
    talk = conversation(seen)
    assert next(talk) is False and recording()
    assert talk.send("word") is False and recording()
    assert talk.throw(error) is False and recording()
    talk.close()
    assert seen == [(False, "word"), (False, error), (False, "closed")] and recording()
    talk = conversation(seen)
    next(talk)
    with pytest.raises(ZeroDivisionError):
        talk.throw(ZeroDivisionError)
    assert seen[-1] == (False, "closed") and recording()


def test_an_error_in_a_decorated_generator_ends_it_and_no_grad():
    @dl.no_grad()
    def fails():
        yield 1
        raise KeyError("inside")

    generator = fails()
    assert next(generator) == 1
    with pytest.raises(KeyError, match="inside"):
        next(generator)
    assert recording() and list(generator) == []


def test_two_decorated_generators_in_turn():
    @dl.no_grad()
    def states():
        for _ in range(3):
            yield recording()

    assert list(zip(states(), states(), strict=True)) == [(False, False)] * 3 and recording()


def test_no_grad_decorates_with_and_without_brackets_as_in_pytorch():
    @dl.no_grad
    def bare(x, *, factor=1):
        """Its words."""
        return recording(), x * factor

    assert bare(2, factor=3) == (False, 6) and bare.__doc__ == "Its words." and recording()


def test_one_no_grad_may_be_entered_again_and_again():
    mode = dl.no_grad()
    with mode, mode:
        with mode:
            pass
        assert not recording()
    assert recording()


# Tasks

def run(*coroutines):
    async def together():
        return await asyncio.gather(*coroutines)

    return asyncio.run(together())


def test_a_task_that_waits_in_no_grad_leaves_other_tasks_alone():
    async def silent(entered, leave):
        with dl.no_grad():
            entered.set()
            await leave.wait()
            return recording()

    async def other(entered, leave):
        await entered.wait()
        before = recording()
        leave.set()
        await asyncio.sleep(0)
        return before, recording()

    async def both():
        events = asyncio.Event(), asyncio.Event()
        return await asyncio.gather(silent(*events), other(*events))

    assert asyncio.run(both()) == [False, (True, True)] and recording()


def test_a_task_starts_as_the_task_that_made_it():
    async def state():
        return recording()

    async def make():
        with dl.no_grad():
            task = asyncio.create_task(state())
        return await task, recording()

    assert run(make()) == [(False, True)]


def test_a_decorated_coroutine_is_not_recorded_while_it_waits_either():
    @dl.no_grad()
    async def evaluate():
        await asyncio.sleep(0)
        return recording()

    async def other():
        await asyncio.sleep(0)
        return recording()

    assert inspect.iscoroutinefunction(evaluate)
    assert run(evaluate(), other(), evaluate()) == [False, True, False]


def test_a_decorated_asynchronous_generator_is_not_recorded_and_the_loop_over_it_is():
    @dl.no_grad()
    async def talk(seen):
        try:
            while True:
                await asyncio.sleep(0)
                try:
                    seen.append((recording(), (yield recording())))
                except KeyError as error:
                    seen.append((recording(), error))
        finally:
            seen.append((recording(), "closed"))

    async def loop():
        seen, error = [], KeyError("thrown")
        generator = talk(seen)
        inside = [await anext(generator), await generator.asend("word"), await generator.athrow(error)]
        outside = recording()
        await generator.aclose()
        return inside, outside, seen, error

    async def counted():
        @dl.no_grad()
        async def three():
            for i in range(3):
                yield i, recording()

        return [(item, recording()) async for item in three()]

    (inside, outside, seen, error), items = run(loop(), counted())
    assert inside == [False] * 3 and outside and recording()
    assert seen == [(False, "word"), (False, error), (False, "closed")]
    assert items == [((i, False), True) for i in range(3)]


def test_a_generator_that_is_closed_in_another_task_does_not_disturb_it():
    async def yields_inside():
        with dl.no_grad():
            yield recording()

    async def abandon():
        return await anext(generators[0])

    async def main():
        generators.append(yields_inside())
        first = await asyncio.create_task(abandon())
        await generators[0].aclose()
        with dl.no_grad():
            inside = recording()
        return first, inside, recording()

    generators = []
    assert asyncio.run(main()) == (False, False, True)


# Threads

def in_thread(function, *arguments):
    """What `function` returns in a thread that inherits the context, as threads of free-threaded Python do."""
    results, context = [], contextvars.copy_context()
    thread = threading.Thread(target=lambda: results.append(context.run(function, *arguments)))
    thread.start()
    thread.join()
    return results[0]


def test_a_new_thread_records_even_if_it_inherits_a_context():
    async def hand_over():
        with dl.no_grad():
            return await asyncio.to_thread(recording), recording()

    with dl.no_grad():
        assert in_thread(recording) and not recording()
    assert run(hand_over()) == [(True, False)]


def test_a_new_thread_starts_from_the_default_and_keeps_its_own():
    value = TaskLocal("default")
    value.set("main")

    def change():
        first = value.get()
        value.set("thread")
        return first, value.get(), in_thread(lambda: value.get())

    assert in_thread(change) == ("default", "thread", "default") and value.get() == "main"


# The siblings of no_grad

def test_observers_of_a_task_see_its_operations_only():
    layer, x = nn.ReLU(), dl.tensor([1.0])

    async def observed():
        seen = []
        with (observe_operations(lambda name, *_: seen.append(name)),
              observe_modules(lambda _: seen.append("enter"), lambda _: seen.append("leave"))):
            for _ in range(2):
                await asyncio.sleep(0)
                layer(x)
        layer(x)
        return seen

    async def unseen():
        for _ in range(3):
            await asyncio.sleep(0)
            nn.Tanh()(x)

    expected = ["enter", "relu", "leave"] * 2
    assert run(observed(), unseen(), observed()) == [expected, None, expected]


def test_observers_end_in_any_order():
    seen, x = [], dl.tensor([1.0])
    first, second = (observe_operations(lambda *_, number=number: seen.append(number)) for number in (1, 2))
    first.__enter__(), second.__enter__()
    x.exp()
    first.__exit__(None, None, None)
    x.exp()
    second.__exit__(None, None, None)
    x.exp()
    assert seen == [1, 2, 2]


def test_the_default_device_and_the_algorithm_hold_for_a_task(monkeypatch):
    monkeypatch.setattr("minidl.backend.check_device", lambda name: name)
    x, w = (dl.tensor(np.ones(shape, np.float32)) for shape in ((1, 1, 6, 6), (1, 1, 3, 3)))

    async def chosen(device, algorithm):
        with dl.device(device), F.conv_algorithm(algorithm) as ran:
            await asyncio.sleep(0)
            F.conv2d(x, w)
            await asyncio.sleep(0)
            return dl.get_device(), ran

    async def default():
        await asyncio.sleep(0)
        return dl.get_device()

    assert run(chosen("gpu:1", "im2col"), default(), chosen("gpu:2", "winograd")) == [
        ("gpu:1", ["im2col"]), "cpu", ("gpu:2", ["winograd"])]
    assert dl.get_device() == "cpu"
