/* The loops of `loops.h` for Python, with the names, arguments and results of `arrays.py` (types in `_compiled.pyi`).
 *
 * Lengths, alignment and writability of buffers are checked here; the types of elements are the caller's part. The
 * interpreter's lock is released while a loop runs.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "loops.h"

enum {
    REVISION = 1, /* as in arrays.py */
    MOST_BUFFERS = 3
};

typedef struct {
    const char *name;
    size_t size; /* bytes of an element */
    int writable;
} Kind;

typedef struct {
    PyObject *objects[MOST_BUFFERS];
    Py_buffer views[MOST_BUFFERS];
    Py_ssize_t counts[MOST_BUFFERS];
    int opened;
} Buffers;

static void close_buffers(Buffers *buffers)
{
    while (buffers->opened > 0)
        PyBuffer_Release(&buffers->views[--buffers->opened]);
}

static int open_buffers(Buffers *buffers, const Kind *kinds, int number)
{
    for (int i = 0; i < number; i++) {
        Py_buffer *view = &buffers->views[i];
        const Py_ssize_t size = (Py_ssize_t)kinds[i].size;
        if (PyObject_GetBuffer(buffers->objects[i], view, kinds[i].writable ? PyBUF_WRITABLE : PyBUF_SIMPLE) != 0) {
            close_buffers(buffers);
            return 0;
        }
        buffers->opened++;
        if (view->len % size || (uintptr_t)view->buf % kinds[i].size) {
            PyErr_Format(PyExc_ValueError, "%s: expected whole, aligned elements of %zd bytes, got %zd bytes",
                         kinds[i].name, size, view->len);
            close_buffers(buffers);
            return 0;
        }
        buffers->counts[i] = view->len / size;
    }
    return 1;
}

/* Whether all buffers have as many elements as the first. */
static int equally_long(const Buffers *buffers, const Kind *kinds)
{
    for (int i = 1; i < buffers->opened; i++)
        if (buffers->counts[i] != buffers->counts[0]) {
            PyErr_Format(PyExc_ValueError, "%s has %zd elements, expected %zd as %s", kinds[i].name, buffers->counts[i],
                         buffers->counts[0], kinds[0].name);
            return 0;
        }
    return 1;
}

static int fits(Py_ssize_t count, Py_ssize_t bytes, unsigned ring_bits)
{
    if (ring_bits != 16 && ring_bits != 20 && ring_bits != 24 && ring_bits != 32) {
        PyErr_Format(PyExc_ValueError, "ring_bits is %u, expected 16, 20, 24 or 32", ring_bits);
        return 0;
    }
    if (count % 8 || bytes % ring_bits || count / 8 != bytes / ring_bits) {
        PyErr_Format(PyExc_ValueError, "%zd elements of %u bits, by eights, do not fill %zd bytes", count, ring_bits, bytes);
        return 0;
    }
    return 1;
}

/* Run a loop without the interpreter's lock, and give the result once the buffers are closed. */
#define RUN(loop)                                                                                                      \
    do {                                                                                                               \
        Py_BEGIN_ALLOW_THREADS loop;                                                                                   \
        Py_END_ALLOW_THREADS                                                                                           \
    } while (0)

static PyObject *py_pack(PyObject *module, PyObject *args)
{
    static const Kind kinds[] = {{"values", 4, 0}, {"out", 1, 1}};
    Buffers b = {0};
    unsigned ring_bits;
    if (!PyArg_ParseTuple(args, "OOI:pack", &b.objects[0], &b.objects[1], &ring_bits) || !open_buffers(&b, kinds, 2))
        return NULL;
    const int good = fits(b.counts[0], b.counts[1], ring_bits);
    if (good)
        RUN(pack_loop(b.views[0].buf, (size_t)b.counts[0], ring_bits, b.views[1].buf));
    close_buffers(&b);
    return good ? Py_NewRef(Py_None) : NULL;
}

static PyObject *py_add_packed(PyObject *module, PyObject *args)
{
    static const Kind kinds[] = {{"total", 4, 1}, {"data", 1, 0}};
    Buffers b = {0};
    unsigned ring_bits;
    if (!PyArg_ParseTuple(args, "OOI:add_packed", &b.objects[0], &b.objects[1], &ring_bits) || !open_buffers(&b, kinds, 2))
        return NULL;
    const int good = fits(b.counts[0], b.counts[1], ring_bits);
    if (good)
        RUN(add_packed_loop(b.views[0].buf, (size_t)b.counts[0], b.views[1].buf, ring_bits));
    close_buffers(&b);
    return good ? Py_NewRef(Py_None) : NULL;
}

static PyObject *py_unpack_signed(PyObject *module, PyObject *args)
{
    static const Kind kinds[] = {{"out", 4, 1}, {"data", 1, 0}};
    Buffers b = {0};
    unsigned ring_bits;
    int32_t range[2] = {0, 0};
    if (!PyArg_ParseTuple(args, "OOI:unpack_signed", &b.objects[0], &b.objects[1], &ring_bits) ||
        !open_buffers(&b, kinds, 2))
        return NULL;
    const int good = fits(b.counts[0], b.counts[1], ring_bits);
    if (good)
        RUN(unpack_signed_loop(b.views[1].buf, (size_t)b.counts[0], ring_bits, b.views[0].buf, range));
    close_buffers(&b);
    return good ? Py_BuildValue("ii", (int)range[0], (int)range[1]) : NULL;
}

static PyObject *py_add_mask(PyObject *module, PyObject *args)
{
    static const Kind kinds[] = {{"part", 4, 1}, {"mask", 4, 0}};
    Buffers b = {0};
    int add;
    if (!PyArg_ParseTuple(args, "OOp:add_mask", &b.objects[0], &b.objects[1], &add) || !open_buffers(&b, kinds, 2))
        return NULL;
    const int good = equally_long(&b, kinds);
    if (good)
        RUN(add_mask_loop(b.views[0].buf, b.views[1].buf, (size_t)b.counts[0], add));
    close_buffers(&b);
    return good ? Py_NewRef(Py_None) : NULL;
}

static PyObject *py_add_two_masks(PyObject *module, PyObject *args)
{
    static const Kind kinds[] = {{"part", 4, 1}, {"one", 4, 0}, {"two", 4, 0}};
    Buffers b = {0};
    int add_one, add_two;
    if (!PyArg_ParseTuple(args, "OOOpp:add_two_masks", &b.objects[0], &b.objects[1], &b.objects[2], &add_one, &add_two) ||
        !open_buffers(&b, kinds, 3))
        return NULL;
    const int good = equally_long(&b, kinds);
    if (good)
        RUN(add_two_masks_loop(b.views[0].buf, b.views[1].buf, b.views[2].buf, (size_t)b.counts[0], add_one, add_two));
    close_buffers(&b);
    return good ? Py_NewRef(Py_None) : NULL;
}

static PyObject *py_quantise(PyObject *module, PyObject *args)
{
    static const Kind kinds[] = {{"words", 4, 1}, {"update", 4, 0}};
    Buffers b = {0};
    double fraction, clip, scale, largest;
    uint32_t worst = 0;
    if (!PyArg_ParseTuple(args, "OOdddd:quantise", &b.objects[0], &b.objects[1], &fraction, &clip, &scale, &largest) ||
        !open_buffers(&b, kinds, 2))
        return NULL;
    int good = equally_long(&b, kinds);
    if (good && !(clip > 0 && clip * scale < 0x1p31 - 2 && largest > 0 && largest < 0x1p31)) {
        PyErr_SetString(PyExc_ValueError, "clip, scale and largest: expected positive values that fit 31 bits");
        good = 0;
    }
    if (good)
        RUN(worst = quantise_loop(b.views[1].buf, b.views[0].buf, (size_t)b.counts[0], fraction, clip, scale, -largest));
    close_buffers(&b);
    return good ? PyBool_FromLong(worst < INFINITY_BITS) : NULL;
}

static PyObject *py_mean(PyObject *module, PyObject *args)
{
    static const Kind kinds[] = {{"out", 8, 1}, {"sums", 4, 0}};
    Buffers b = {0};
    double clip, weight;
    if (!PyArg_ParseTuple(args, "OOdd:mean", &b.objects[0], &b.objects[1], &clip, &weight) || !open_buffers(&b, kinds, 2))
        return NULL;
    const int good = equally_long(&b, kinds);
    if (good)
        RUN(mean_loop(b.views[1].buf, b.views[0].buf, (size_t)b.counts[0], clip, weight));
    close_buffers(&b);
    return good ? Py_NewRef(Py_None) : NULL;
}

static PyObject *py_advance(PyObject *module, PyObject *args)
{
    static const Kind kinds[] = {{"out", 4, 1}, {"model", 4, 0}, {"change", 8, 0}};
    Buffers b = {0};
    if (!PyArg_ParseTuple(args, "OOO:advance", &b.objects[0], &b.objects[1], &b.objects[2]) || !open_buffers(&b, kinds, 3))
        return NULL;
    const int good = equally_long(&b, kinds);
    if (good)
        RUN(advance_loop(b.views[1].buf, b.views[2].buf, b.views[0].buf, (size_t)b.counts[0]));
    close_buffers(&b);
    return good ? Py_NewRef(Py_None) : NULL;
}

static PyMethodDef methods[] = {
    {"pack", py_pack, METH_VARARGS, NULL},
    {"add_packed", py_add_packed, METH_VARARGS, NULL},
    {"unpack_signed", py_unpack_signed, METH_VARARGS, NULL},
    {"add_mask", py_add_mask, METH_VARARGS, NULL},
    {"add_two_masks", py_add_two_masks, METH_VARARGS, NULL},
    {"quantise", py_quantise, METH_VARARGS, NULL},
    {"mean", py_mean, METH_VARARGS, NULL},
    {"advance", py_advance, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static int say_revision(PyObject *module)
{
    return PyModule_AddIntConstant(module, "REVISION", REVISION);
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, (void *)say_revision}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_compiled", "The passes of arrays.py, compiled.", 0, methods, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__compiled(void)
{
    return PyModuleDef_Init(&definition);
}
