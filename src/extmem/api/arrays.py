"""`NamedArrays`: memory that holds many named arrays, as a mapping; and `NamedSelection`, some of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

from extmem import _pickles
from extmem.api.device import DeviceMemory
from extmem.api.slices import MemorySlice
from extmem.arguments import a_type
from extmem.core import tables
from extmem.errors import UnsupportedError
from extmem.interop import arrow_tables, state_views, trees
from extmem.interop.state_views import ArrayViews, Patterns
from extmem.sharing.layout import ArrayLayout, Axes
from extmem.sharing.table import Entry, Scalar, Table, strides_of

if TYPE_CHECKING:
    from extmem.core.tables import Known

__all__ = ["NamedArrays", "NamedSelection"]


class _Arrays:
    """What memory of named arrays and a selection of it have in common."""

    __slots__ = ()

    def _memory(self) -> NamedArrays:
        raise NotImplementedError

    def _entries(self) -> Mapping[str, Entry]:
        raise NotImplementedError

    def keys(self) -> tuple[str, ...]:
        """Return the names, in the order in which the arrays were shared."""
        return tuple(self._entries())

    def items(self) -> list[tuple[str, MemorySlice]]:
        """Return pairs of names and arrays. Nothing is mapped for it."""
        return [(name, self._slice(entry)) for name, entry in self._entries().items()]

    def values(self) -> list[MemorySlice]:
        """Return the arrays, as `items`."""
        return [self._slice(entry) for entry in self._entries().values()]

    def get(self, name: str, default: Any = None) -> Any:
        """Return the array of this name; `default` if there is none."""
        entry = self._entries().get(name)
        return default if entry is None else self._slice(entry)

    def select(self, *patterns: str) -> NamedSelection:
        """Return the arrays whose names match one of the patterns (`encoder.*`, `*.bias`), as a mapping.

        Nothing is copied or mapped. It does not keep the memory open. Errors: TypeError for patterns that are not text.
        """
        state_views.check_patterns(patterns, "select()")
        found = {n: e for n, e in self._entries().items() if any(fnmatchcase(n, one) for one in patterns)}
        return NamedSelection(self._memory(), found)

    def _slice(self, entry: Entry) -> MemorySlice:
        layout = ArrayLayout(entry.shape, entry.dtype, strides_of(entry), entry.offset)
        return MemorySlice(self._memory(), layout, entry.name)

    def _named(self, name: str) -> MemorySlice:
        entry = self._entries().get(name)
        if entry is None:
            memory = self._memory()
            if isinstance(memory, NamedArrays) and memory._holds_arrow(memory.table):
                like = "; it holds a table of Arrow, whose columns arrow() returns"
            else:
                like = state_views.near(name, self._entries())
            raise KeyError(f"there is no array {name!r} in this memory ({memory.what()}){like}")
        return self._slice(entry)

    # Views of all.

    def _numpy_views(self, private: Patterns) -> ArrayViews:
        return ArrayViews(self._entries(), state_views.numpy_maker(self._memory().map(), private))

    def _torch_views(self, private: Patterns) -> ArrayViews:
        base = state_views.torch_base(self._memory())
        return ArrayViews(self._entries(), state_views.torch_maker(base, private))

    def _slice_views(self, method: str) -> ArrayViews:
        return ArrayViews(self._entries(), lambda entry: getattr(self._slice(entry), method)())


class NamedArrays(DeviceMemory, _Arrays):
    """Memory that holds many arrays by name, such as a model's weights: a mapping from names to `MemorySlice`.

    Everything of `DeviceMemory` holds, for the bytes of the whole payload. `numpy`, `torch`, `jax` and `cupy` without
    arguments return mappings from names to arrays, which are made when they are asked for. Made by `extmem.share`,
    `extmem.load_safetensors` and `extmem.open`.

    Errors of every method that uses a name: DescriptorError if the table of the payload cannot be true, which is found
    before anything is mapped; HandleStateError if the memory came by file descriptor, which does not carry the table.
    """

    __slots__ = ()

    def _memory(self) -> NamedArrays:
        return self

    def _known(self) -> Known:
        with self.use() as record:
            return tables.table_of(record)

    @property
    def table(self) -> Table:
        """The checked table (for the library itself)."""
        return self._known().table

    def _entries(self) -> Mapping[str, Entry]:
        return self._known().entries

    @property
    def metadata(self) -> Mapping[str, Scalar]:
        """What the program that shared the arrays said about them."""
        return MappingProxyType(self.table.metadata)

    def __len__(self) -> int:
        return len(self.table.entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries())

    def __contains__(self, name: object) -> bool:
        return name in self._entries()

    def __getitem__(self, name: Any) -> MemorySlice:
        if not isinstance(name, str):
            raise TypeError(f"the index {name!r} is {a_type(name)}; this memory holds arrays by name: keys()")
        return self._named(name)

    def __array__(self, dtype: object = None, copy: bool | None = None) -> NoReturn:
        raise TypeError(
            f"this memory ({self.what()}) holds {len(self)} arrays by name, and is not one array; use "
            "memory['name'].numpy(), or memory.numpy()['name']"
        )

    @property
    def __array_interface__(self) -> dict[str, Any]:
        raise AttributeError("memory of named arrays is not one array; use memory['name']")

    def numpy(
        self,
        dtype: object = None,
        shape: Axes = None,
        *,
        strides: Axes = None,
        offset: int = 0,
        private: Patterns = False,
    ) -> Any:
        """Return a mapping from names to NumPy arrays over the payload, zero copy.

        private: patterns of names (`"*.running_*"`), True for all: these arrays are copies, which the program may
            write to.
        dtype, shape, strides, offset: one array over the payload instead, as `DeviceMemory.numpy`.
        """
        if not (dtype is None and shape is None and strides is None and not offset):
            return super().numpy(dtype, shape, strides=strides, offset=offset)
        return self._numpy_views(private)

    def torch(
        self,
        dtype: object = None,
        shape: Axes = None,
        *,
        strides: Axes = None,
        offset: int = 0,
        private: Patterns = False,
    ) -> Any:
        """Return a mapping from names to tensors over the payload, zero copy: a state dictionary.

        The tensors are on the GPU if CUDA can use the memory, else on the host. `torch.save` and `copy.deepcopy` of
        the mapping, of a tensor, or of a model that uses them copy the bytes. Arguments as `numpy`.
        """
        if not (dtype is None and shape is None and strides is None and not offset):
            return super().torch(dtype, shape, strides=strides, offset=offset)
        return self._torch_views(private)

    def jax(self, dtype: object = None, shape: Axes = None, *, offset: int = 0) -> Any:
        """Return a mapping from names to JAX arrays over the payload, zero copy. As `DeviceMemory.jax`, for each."""
        if not (dtype is None and shape is None and not offset):
            return super().jax(dtype, shape, offset=offset)
        return self._slice_views("jax")

    def cupy(self, dtype: object = None, shape: Axes = None, *, strides: Axes = None, offset: int = 0) -> Any:
        """Return a mapping from names to CuPy arrays over the payload, zero copy. As `DeviceMemory.cupy`, for each."""
        if not (dtype is None and shape is None and strides is None and not offset):
            return super().cupy(dtype, shape, strides=strides, offset=offset)
        return self._slice_views("cupy")

    def tree(self, framework: str | None = None, *, private: Patterns = False) -> Any:
        """Return the arrays in the dictionaries, lists and tuples in which they were shared.

        framework: "numpy", "torch", "jax" or "cupy" for arrays of it; None for `MemorySlice`. A table of Arrow is
            returned as such (`arrow`).
        """
        table = self.table
        if framework is None:
            _refuse_private(private, "tree() without a framework")
        if framework is None and self._holds_arrow(table):
            return self.arrow()
        names = [entry.name for entry in table.entries]
        views: Any = self if framework is None else _views_of(self, framework, private)
        return trees.rebuild(table.tree, names, lambda number: views[names[number]])

    def arrow(self) -> Any:
        """Return the table of PyArrow that was shared, zero copy. Its `to_pandas` makes a data frame.

        The sizes of its buffers are checked. The values are not: if the process that shared the table may lie, call
        `validate(full=True)` of the table before its strings and lists are used.

        Errors: UnsupportedError for memory that holds no table, and without PyArrow; DescriptorError for bytes that
        are no table.
        """
        if not self._holds_arrow(self.table):
            raise UnsupportedError(
                f"this memory ({self.what()}) holds arrays, and not a table of Arrow; use numpy() or torch()",
                requires_one_of=["memory of a table that was shared"],
            )
        return arrow_tables.read(self[arrow_tables.ENTRY].numpy())

    def _holds_arrow(self, table: Table) -> bool:
        return table.metadata.get(arrow_tables.MARK) == arrow_tables.FORMAT and arrow_tables.ENTRY in self

    def __reduce__(self) -> tuple[Any, ...]:
        return _pickles.reduce_memory(self)

    def __dir__(self) -> list[str]:
        hidden = ("metadata", "table") if self.closed else ("table",)
        return [name for name in super().__dir__() if name not in hidden]

    def __repr__(self) -> str:
        return f"<NamedArrays {super().__repr__()[14:]}"


class NamedSelection(_Arrays):
    """Some of the arrays of `NamedArrays`, by their names. Made by `select`. It does not keep the memory open."""

    __slots__ = ("_chosen", "_whole")

    def __init__(self, whole: NamedArrays, chosen: Mapping[str, Entry]) -> None:
        self._whole = whole
        self._chosen = chosen

    def _memory(self) -> NamedArrays:
        return self._whole

    def _entries(self) -> Mapping[str, Entry]:
        return self._chosen

    def __len__(self) -> int:
        return len(self._chosen)

    def __iter__(self) -> Iterator[str]:
        return iter(self._chosen)

    def __contains__(self, name: object) -> bool:
        return name in self._chosen

    def __getitem__(self, name: str) -> MemorySlice:
        return self._named(name)

    def numpy(self, *, private: Patterns = False) -> ArrayViews:
        """Return a mapping from names to NumPy arrays; see `NamedArrays.numpy`."""
        return self._numpy_views(private)

    def torch(self, *, private: Patterns = False) -> ArrayViews:
        """Return a mapping from names to tensors; see `NamedArrays.torch`."""
        return self._torch_views(private)

    def jax(self) -> ArrayViews:
        """Return a mapping from names to JAX arrays."""
        return self._slice_views("jax")

    def cupy(self) -> ArrayViews:
        """Return a mapping from names to CuPy arrays."""
        return self._slice_views("cupy")

    def __repr__(self) -> str:
        return f"<NamedSelection of {len(self)} arrays of {self._whole!r}>"


def _refuse_private(private: Patterns, call: str) -> None:
    if private is not False and private != ():
        raise ValueError(f"private is {private!r}, and {call} makes no copies; use 'numpy' or 'torch'")


def _views_of(arrays: NamedArrays, framework: str, private: Patterns) -> ArrayViews:
    if framework == "numpy":
        return arrays._numpy_views(private)
    if framework == "torch":
        return arrays._torch_views(private)
    if framework in ("jax", "cupy"):
        _refuse_private(private, f"tree({framework!r})")
        return arrays._slice_views(framework)
    raise ValueError(f"framework is {framework!r}; give 'numpy', 'torch', 'jax' or 'cupy', or None for slices")
