package dev.dcptf.sample

/**
 * How pixels become the input of a model: `(pixel - mean) / std`, channel by channel.
 *
 * `mean` and `std` have one value, or one for each channel in the order in which the model takes them.
 */
class PixelFormat(
    val height: Int,
    val width: Int,
    val channels: Int,
    private val mean: FloatArray,
    private val std: FloatArray,
    private val isBgr: Boolean,
) {
    init {
        require(channels == 1 || channels == 3) { "The model takes $channels channels, an image has 1 or 3" }
        require(mean.isNotEmpty() && std.isNotEmpty()) { "The file does not say how its pixels are normalized" }
    }

    /** The input of the model, from pixels as Bitmap.getPixels gives them. */
    fun input(colors: IntArray): FloatArray {
        require(colors.size == height * width) { "Expected $width x $height pixels, received ${colors.size}" }
        val values = FloatArray(colors.size * channels)
        colors.forEachIndexed { i, color ->
            for (c in 0 until channels) {
                values[i * channels + c] = (value(color, c) - mean[c % mean.size]) / std[c % std.size]
            }
        }
        return values
    }

    private fun value(color: Int, channel: Int): Float {
        val red = color shr 16 and 0xFF
        val green = color shr 8 and 0xFF
        val blue = color and 0xFF
        if (channels == 1) return 0.299f * red + 0.587f * green + 0.114f * blue
        return when (if (isBgr) 2 - channel else channel) {
            0 -> red
            1 -> green
            else -> blue
        }.toFloat()
    }
}
