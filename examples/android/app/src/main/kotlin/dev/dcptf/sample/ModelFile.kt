package dev.dcptf.sample

import java.nio.ByteBuffer
import java.nio.ByteOrder
import org.json.JSONArray
import org.json.JSONObject

/**
 * What a .tflite file of dcp_tf says about itself.
 *
 * A file is a FlatBuffer; its metadata table has an entry DCP_TF_METADATA, which is JSON. Nothing of Android is used
 * here but org.json.
 */
class ModelFile(bytes: ByteArray) {
    private val data: ByteBuffer = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN)
    private val root = data.getInt(0)

    /** Name of the Keras model. */
    val name: String

    /** Mode of the file, such as "int8". */
    val quantization: String

    /** Names of the classes in the order of the outputs; empty if unknown. */
    val labels: List<String>

    /** Whether the outputs sum to one. */
    val areProbabilities: Boolean

    /** How pixels become inputs. */
    val pixels: PixelFormat

    init {
        val input = firstInput()
        val shape = ints(field(input, TENSOR_SHAPE))
        require(shape.size == 4 && shape[0] == 1) { "The first input is no image, but of shape $shape" }
        val type = field(input, TENSOR_TYPE)
        val isFloat = type == null || data.get(type).toInt() == FLOAT32
        require(isFloat) { "The input takes integers: export with --int8_io=float" }
        val metadata = JSONObject(String(metadata(), Charsets.UTF_8))
        name = metadata.getString("model")
        quantization = metadata.getString("quantization")
        labels = metadata.getJSONArray("labels").let { array -> List(array.length()) { array.getString(it) } }
        areProbabilities = metadata.optString("outputs") == "probabilities"
        pixels = PixelFormat(
            height = shape[1],
            width = shape[2],
            channels = shape[3],
            mean = floats(metadata.getJSONArray("mean")),
            std = floats(metadata.getJSONArray("std")),
            isBgr = metadata.optString("channels") == "BGR",
        )
    }

    /** Position of the table of the first input tensor. */
    private fun firstInput(): Int {
        val graph = table(requireNotNull(field(root, MODEL_SUBGRAPHS)), 0)
        val first = ints(field(graph, GRAPH_INPUTS)).first()
        return table(requireNotNull(field(graph, GRAPH_TENSORS)), first)
    }

    /** The entry that dcp_tf wrote. */
    private fun metadata(): ByteArray {
        val entries = requireNotNull(field(root, MODEL_METADATA)) { "The file has no metadata: write it with dcp_tf" }
        val buffers = requireNotNull(field(root, MODEL_BUFFERS))
        for (i in 0 until length(entries)) {
            val entry = table(entries, i)
            if (text(requireNotNull(field(entry, ENTRY_NAME))) == ENTRY) {
                val number = field(entry, ENTRY_BUFFER)?.let { data.getInt(it) } ?: 0
                return bytes(requireNotNull(field(table(buffers, number), BUFFER_DATA)))
            }
        }
        throw IllegalArgumentException("The file has no entry $ENTRY: write it with dcp_tf")
    }

    /** Position of a field of a table; null where it has its default. */
    private fun field(table: Int, number: Int): Int? {
        val layout = table - data.getInt(table)
        val slot = 4 + 2 * number
        if (slot >= data.getShort(layout)) return null
        val offset = data.getShort(layout + slot).toInt() and 0xFFFF
        return if (offset == 0) null else table + offset
    }

    private fun start(vector: Int): Int = vector + data.getInt(vector)

    private fun length(vector: Int): Int = data.getInt(start(vector))

    private fun table(vector: Int, i: Int): Int {
        val place = start(vector) + 4 + 4 * i
        return place + data.getInt(place)
    }

    private fun ints(vector: Int?): List<Int> =
        if (vector == null) emptyList() else List(length(vector)) { data.getInt(start(vector) + 4 + 4 * it) }

    private fun bytes(vector: Int): ByteArray = ByteArray(length(vector)) { data.get(start(vector) + 4 + it) }

    private fun text(vector: Int): String = String(bytes(vector), Charsets.UTF_8)

    private fun floats(array: JSONArray) = FloatArray(array.length()) { array.getDouble(it).toFloat() }

    /** Numbers of fields in TFLite's schema.fbs. */
    private companion object {
        const val ENTRY = "DCP_TF_METADATA"
        const val MODEL_SUBGRAPHS = 2
        const val MODEL_BUFFERS = 4
        const val MODEL_METADATA = 6
        const val GRAPH_TENSORS = 0
        const val GRAPH_INPUTS = 1
        const val TENSOR_SHAPE = 0
        const val TENSOR_TYPE = 1
        const val BUFFER_DATA = 0
        const val ENTRY_NAME = 0
        const val ENTRY_BUFFER = 1
        const val FLOAT32 = 0
    }
}
