plugins {
    alias(libs.plugins.android.application) // it compiles Kotlin itself since version 9
}

android {
    namespace = "dev.dcptf.sample"
    compileSdk = 36

    defaultConfig {
        applicationId = "dev.dcptf.sample"
        minSdk = 24 // of LiteRT 2.3
        targetSdk = 36
        versionCode = 1
        versionName = "1.0"
    }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }

    androidResources {
        noCompress += "tflite" // the model is mapped into memory
    }
}

dependencies {
    implementation(libs.litert)
    implementation(libs.litert.gpu) // without it Accelerator.GPU cannot be had
}
