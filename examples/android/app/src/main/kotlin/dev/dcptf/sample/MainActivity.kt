package dev.dcptf.sample

import android.app.Activity
import android.graphics.Bitmap
import android.graphics.BitmapFactory
import android.os.Bundle
import android.widget.Button
import android.widget.CheckBox
import android.widget.ImageView
import android.widget.TextView
import com.google.ai.edge.litert.LiteRtException
import java.io.FileNotFoundException
import java.util.concurrent.Executors

/** Shows the images of the assets one after another, and what the model says of each. */
class MainActivity : Activity() {
    private val worker = Executors.newSingleThreadExecutor() // a model takes time to load, and is not for two threads
    private var classifier: Classifier? = null // of the worker
    private var shown = 0
    private lateinit var images: List<String>

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setContentView(R.layout.activity_main)
        images = assets.list(IMAGES).orEmpty().filter { it.substringAfterLast('.').lowercase() in FORMATS }.sorted()
        findViewById<Button>(R.id.next).setOnClickListener {
            shown += 1
            show()
        }
        findViewById<CheckBox>(R.id.gpu).setOnClickListener {
            worker.execute { release() }
            show()
        }
        show()
    }

    override fun onDestroy() {
        worker.execute { release() }
        worker.shutdown()
        super.onDestroy()
    }

    private fun show() {
        if (images.isEmpty()) return say(getString(R.string.no_images))
        val name = images[shown % images.size]
        val wantsGpu = findViewById<CheckBox>(R.id.gpu).isChecked
        worker.execute {
            val image = assets.open("$IMAGES/$name").use { BitmapFactory.decodeStream(it) }
            val text = try {
                answer(name, image, wantsGpu)
            } catch (missing: FileNotFoundException) {
                getString(R.string.no_model)
            } catch (error: IllegalArgumentException) { // the file does not suit this app
                error.message.orEmpty()
            } catch (error: LiteRtException) { // or LiteRT cannot run it
                error.message.orEmpty()
            }
            runOnUiThread {
                findViewById<ImageView>(R.id.image).setImageBitmap(image)
                say(text)
            }
        }
    }

    private fun answer(name: String, image: Bitmap, wantsGpu: Boolean): String {
        val model = classifier ?: Classifier(assets, MODEL, wantsGpu).also {
            classifier = it
            it.classify(image) // the first inference loads kernels
        }
        val (answers, milliseconds) = model.classify(image)
        val place = when {
            model.isOnGpu -> R.string.on_gpu
            wantsGpu -> R.string.fell_back
            else -> R.string.on_cpu
        }
        val file = model.file
        val heading = getString(R.string.heading, file.name, file.quantization, name, getString(place), milliseconds)
        val rows = answers.map { (label, value) ->
            if (file.areProbabilities) getString(R.string.row, 100 * value, label)
            else getString(R.string.value, value, label)
        }
        return (listOf(heading, "") + rows).joinToString("\n")
    }

    private fun say(text: String) {
        findViewById<TextView>(R.id.answer).text = text
    }

    private fun release() {
        classifier?.close()
        classifier = null
    }

    private companion object {
        const val MODEL = "model.tflite"
        const val IMAGES = "images"
        val FORMATS = setOf("jpg", "jpeg", "png", "webp")
    }
}
