/* A function that is told of every instruction, and makes a signal pending before the N-th of them.
 *
 * One in Python cannot do that: the interpreter would run the signal handler in that function itself.
 * The signal becomes pending as if the kernel had delivered it at this moment; the interpreter then runs the handler
 * where it does so next: after a call of C code, at the beginning of a function, or at a backward jump.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <frameobject.h>

static long long count, target;
static int signal_number;

static int trace(PyObject *self, PyFrameObject *frame, int what, PyObject *argument)
{
    (void)self;
    (void)argument;
    if (what == PyTrace_CALL)
        return PyObject_SetAttrString((PyObject *)frame, "f_trace_opcodes", Py_True);
    if (what == PyTrace_OPCODE && ++count == target) {
        PyEval_SetTrace(NULL, NULL);
        PyErr_SetInterruptEx(signal_number);
    }
    return 0;
}

/* For sys.monitoring, since Python 3.12: instruction(code, offset). */
static PyObject *instruction(PyObject *module, PyObject *arguments)
{
    (void)module;
    (void)arguments;
    if (++count == target)
        PyErr_SetInterruptEx(signal_number);
    Py_RETURN_NONE;
}

static PyObject *arm(PyObject *module, PyObject *arguments)
{
    (void)module;
    if (!PyArg_ParseTuple(arguments, "Li", &target, &signal_number))
        return NULL;
    count = 0;
    Py_RETURN_NONE;
}

/* Before: a trace function. */
static PyObject *start(PyObject *module, PyObject *arguments)
{
    PyObject *armed = arm(module, arguments);
    if (armed != NULL)
        PyEval_SetTrace(trace, Py_None);
    return armed;
}

static PyObject *stop(PyObject *module, PyObject *arguments)
{
    (void)module;
    (void)arguments;
    PyEval_SetTrace(NULL, NULL);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"instruction", instruction, METH_VARARGS, "instruction(code, offset): a callback of sys.monitoring."},
    {"arm", arm, METH_VARARGS, "arm(number, signal): make the signal pending before that instruction."},
    {"start", start, METH_VARARGS, "start(number, signal): as `arm`, and trace."},
    {"stop", stop, METH_NOARGS, "stop(): trace no more."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "tracer", .m_size = -1, .m_methods = methods};

PyMODINIT_FUNC PyInit_tracer(void)
{
    return PyModule_Create(&definition);
}
