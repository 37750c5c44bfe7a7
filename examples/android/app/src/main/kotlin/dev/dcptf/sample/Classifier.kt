package dev.dcptf.sample

import android.content.res.AssetManager
import android.graphics.Bitmap
import com.google.ai.edge.litert.Accelerator
import com.google.ai.edge.litert.CompiledModel
import com.google.ai.edge.litert.LiteRtException
import java.io.Closeable

/** A class and the output that it got. */
data class Answer(val label: String, val value: Float)

/** What a model said of an image, and how long it took. */
data class Classification(val answers: List<Answer>, val milliseconds: Double)

/**
 * Classifies images with a file of dcp_tf. Create it once, off the main thread, and keep it.
 *
 * @param assets where the file is.
 * @param asset its name there.
 * @param wantsGpu whether to try the GPU first.
 */
class Classifier(assets: AssetManager, asset: String, wantsGpu: Boolean) : Closeable {
    /** What the file says about itself. */
    val file = ModelFile(assets.open(asset).use { it.readBytes() })

    /** Whether the GPU runs the model. */
    val isOnGpu: Boolean

    private val model: CompiledModel

    init {
        // With Options(GPU, CPU) LiteRT would fall back to the CPU without a word.
        val onGpu = if (wantsGpu) createOnGpu(assets, asset) else null
        isOnGpu = onGpu != null
        model = onGpu ?: CompiledModel.create(assets, asset, cpuOptions())
    }

    private val inputs = model.createInputBuffers()
    private val outputs = model.createOutputBuffers()

    /** The classes with the highest outputs, the highest first. */
    fun classify(image: Bitmap, count: Int = 5): Classification {
        val format = file.pixels
        val scaled = Bitmap.createScaledBitmap(image, format.width, format.height, true)
        val colors = IntArray(format.width * format.height)
        scaled.getPixels(colors, 0, format.width, 0, 0, format.width, format.height)
        inputs[0].writeFloat(format.input(colors))
        val start = System.nanoTime()
        model.run(inputs, outputs)
        val values = outputs[0].readFloat() // on a GPU, run() returns before the outputs are there
        val milliseconds = (System.nanoTime() - start) / 1e6
        val best = values.indices.sortedByDescending { values[it] }.take(count)
        return Classification(best.map { Answer(label(it), values[it]) }, milliseconds)
    }

    override fun close() {
        (inputs + outputs).forEach { it.close() }
        model.close()
    }

    private fun label(i: Int): String = file.labels.getOrElse(i) { "class $i" }

    private companion object {
        const val THREADS = 4

        fun cpuOptions() = CompiledModel.Options(Accelerator.CPU).apply {
            cpuOptions = CompiledModel.CpuOptions(numThreads = THREADS)
        }

        fun createOnGpu(assets: AssetManager, asset: String): CompiledModel? =
            try {
                CompiledModel.create(assets, asset, CompiledModel.Options(Accelerator.GPU))
            } catch (refused: LiteRtException) {
                null // no GPU, or an operation that it does not know
            }
    }
}
